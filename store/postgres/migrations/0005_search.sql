-- +goose Up
-- portcullis: expand
-- A node that knows the schema before this one goes on serving beside it: the tables
-- are new.
CREATE TABLE "search_queue" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "part" TEXT,
  "at" BIGINT,
  "due_at" BIGINT,
  "tries" BIGINT,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "search_groups" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  PRIMARY KEY (tenant, id)
);

-- +goose Down
DROP TABLE "search_groups";
DROP TABLE "search_queue";
