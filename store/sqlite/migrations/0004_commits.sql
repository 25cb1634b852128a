-- +goose Up
-- portcullis: expand
-- SQLite answers a commit itself: the numbers of both engines stay the same.
SELECT 1;

-- +goose Down
SELECT 1;
