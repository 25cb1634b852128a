-- +goose Up
-- portcullis: expand
-- A node that knows the schema before this one goes on serving beside it: the tables
-- are new.
CREATE TABLE "search_queue" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  doc TEXT NOT NULL,
  "part" TEXT,
  "at" INTEGER,
  "due_at" INTEGER,
  "tries" INTEGER,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "search_groups" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY (tenant, id)
);

-- +goose Down
DROP TABLE "search_groups";
DROP TABLE "search_queue";
