-- +goose Up
-- A node that knows the schema before this one goes on serving beside it: the tables
-- are new.
CREATE TABLE "members" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "cluster" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "changes" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "at" BIGINT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX changes_at_idx ON "changes" ("at");
CREATE INDEX changes_expires_at_idx ON "changes" ("expires_at");

-- +goose Down
DROP TABLE "changes";
DROP TABLE "cluster";
DROP TABLE "members";
