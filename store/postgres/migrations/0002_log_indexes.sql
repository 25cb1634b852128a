-- +goose Up
-- Every event of the tenants' logs is put into each index: twelve trees for one
-- event made the log the larger part of a token's cost. What few events have, or
-- most share, is found by date as well.
DROP INDEX logs_user_id_idx;
DROP INDEX logs_user_name_idx;
DROP INDEX logs_client_name_idx;
DROP INDEX logs_connection_idx;
DROP INDEX logs_connection_id_idx;
DROP INDEX logs_hostname_idx;
DROP INDEX logs_audience_idx;
CREATE INDEX logs_user_id_idx ON "logs" (tenant, "user_id") WHERE "user_id" IS NOT NULL;
CREATE INDEX logs_user_name_idx ON "logs" (tenant, "user_name") WHERE "user_name" IS NOT NULL;

-- +goose Down
DROP INDEX logs_user_id_idx;
DROP INDEX logs_user_name_idx;
CREATE INDEX logs_user_id_idx ON "logs" (tenant, "user_id");
CREATE INDEX logs_user_name_idx ON "logs" (tenant, "user_name");
CREATE INDEX logs_client_name_idx ON "logs" (tenant, "client_name");
CREATE INDEX logs_connection_idx ON "logs" (tenant, "connection");
CREATE INDEX logs_connection_id_idx ON "logs" (tenant, "connection_id");
CREATE INDEX logs_hostname_idx ON "logs" (tenant, "hostname");
CREATE INDEX logs_audience_idx ON "logs" (tenant, "audience");
