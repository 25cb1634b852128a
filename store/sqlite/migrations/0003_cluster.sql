-- +goose Up
-- A node that knows the schema before this one goes on serving beside it: the tables
-- are new.
CREATE TABLE "members" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "cluster" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "changes" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  doc TEXT NOT NULL,
  "at" INTEGER,
  "expires_at" INTEGER,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX changes_at_idx ON "changes" ("at");
CREATE INDEX changes_expires_at_idx ON "changes" ("expires_at");

-- +goose Down
DROP TABLE "changes";
DROP TABLE "cluster";
DROP TABLE "members";
