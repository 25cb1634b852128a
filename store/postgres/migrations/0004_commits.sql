-- +goose Up
-- portcullis: expand
-- For each connection, the last transaction that it committed: a node that lost the
-- answer to a commit reads here whether it happened.
CREATE TABLE commits (
  slot TEXT PRIMARY KEY,
  token TEXT NOT NULL,
  fenced BIGINT NOT NULL,
  at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE commits;
