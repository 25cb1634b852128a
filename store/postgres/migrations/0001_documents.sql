-- +goose Up
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE "tenants" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX tenants_created_at_idx ON "tenants" (tenant, "created_at");

CREATE TABLE "settings" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE "clients" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "name" TEXT,
  "app_type" TEXT,
  "is_first_party" BIGINT,
  "is_global" BIGINT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX clients_name_idx ON "clients" (tenant, "name");
CREATE INDEX clients_app_type_idx ON "clients" (tenant, "app_type");
CREATE INDEX clients_created_at_idx ON "clients" (tenant, "created_at");

CREATE TABLE "client_credentials" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "client_id" TEXT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX client_credentials_client_id_idx ON "client_credentials" (tenant, "client_id");
CREATE INDEX client_credentials_created_at_idx ON "client_credentials" (tenant, "created_at");

CREATE TABLE "resource_servers" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "identifier" TEXT,
  "name" TEXT,
  "is_system" BIGINT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX resource_servers_identifier_key ON "resource_servers" (tenant, "identifier") WHERE "identifier" IS NOT NULL;
CREATE INDEX resource_servers_name_idx ON "resource_servers" (tenant, "name");
CREATE INDEX resource_servers_created_at_idx ON "resource_servers" (tenant, "created_at");

CREATE TABLE "client_grants" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "client_id" TEXT,
  "audience" TEXT,
  "subject_type" TEXT,
  "default_for" TEXT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX client_grants_client_id_key ON "client_grants" (tenant, "client_id", "audience", "subject_type") WHERE "client_id" IS NOT NULL AND "audience" IS NOT NULL AND "subject_type" IS NOT NULL;
CREATE INDEX client_grants_client_id_idx ON "client_grants" (tenant, "client_id");
CREATE INDEX client_grants_audience_idx ON "client_grants" (tenant, "audience");
CREATE INDEX client_grants_subject_type_idx ON "client_grants" (tenant, "subject_type");
CREATE INDEX client_grants_default_for_idx ON "client_grants" (tenant, "default_for");
CREATE INDEX client_grants_created_at_idx ON "client_grants" (tenant, "created_at");

CREATE TABLE "connections" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "name" TEXT,
  "strategy" TEXT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX connections_name_key ON "connections" (tenant, "name") WHERE "name" IS NOT NULL;
CREATE INDEX connections_strategy_idx ON "connections" (tenant, "strategy");
CREATE INDEX connections_created_at_idx ON "connections" (tenant, "created_at");

CREATE TABLE "roles" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "name" TEXT,
  "type" TEXT,
  "owner_id" TEXT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX roles_name_idx ON "roles" (tenant, "name");
CREATE INDEX roles_type_idx ON "roles" (tenant, "type");
CREATE INDEX roles_owner_id_idx ON "roles" (tenant, "owner_id");
CREATE INDEX roles_created_at_idx ON "roles" (tenant, "created_at");

CREATE TABLE "role_permissions" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "role_id" TEXT,
  "resource_server" TEXT,
  "permission" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX role_permissions_role_id_idx ON "role_permissions" (tenant, "role_id");
CREATE INDEX role_permissions_resource_server_idx ON "role_permissions" (tenant, "resource_server");
CREATE INDEX role_permissions_permission_idx ON "role_permissions" (tenant, "permission");

CREATE TABLE "users" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "email" TEXT,
  "email_verified" BIGINT,
  "username" TEXT,
  "phone_number" TEXT,
  "name" TEXT,
  "nickname" TEXT,
  "given_name" TEXT,
  "family_name" TEXT,
  "blocked" BIGINT,
  "connection" TEXT,
  "logins_count" BIGINT,
  "last_ip" TEXT,
  "last_login" BIGINT,
  "created_at" BIGINT,
  "updated_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX users_email_idx ON "users" (tenant, "email");
CREATE INDEX users_username_idx ON "users" (tenant, "username");
CREATE INDEX users_phone_number_idx ON "users" (tenant, "phone_number");
CREATE INDEX users_name_idx ON "users" (tenant, "name");
CREATE INDEX users_nickname_idx ON "users" (tenant, "nickname");
CREATE INDEX users_given_name_idx ON "users" (tenant, "given_name");
CREATE INDEX users_family_name_idx ON "users" (tenant, "family_name");
CREATE INDEX users_connection_idx ON "users" (tenant, "connection");
CREATE INDEX users_logins_count_idx ON "users" (tenant, "logins_count");
CREATE INDEX users_last_ip_idx ON "users" (tenant, "last_ip");
CREATE INDEX users_last_login_idx ON "users" (tenant, "last_login");
CREATE INDEX users_created_at_idx ON "users" (tenant, "created_at");
CREATE INDEX users_updated_at_idx ON "users" (tenant, "updated_at");

CREATE TABLE "user_roles" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "role_id" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX user_roles_user_id_idx ON "user_roles" (tenant, "user_id");
CREATE INDEX user_roles_role_id_idx ON "user_roles" (tenant, "role_id");

CREATE TABLE "user_permissions" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "resource_server" TEXT,
  "permission" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX user_permissions_user_id_idx ON "user_permissions" (tenant, "user_id");
CREATE INDEX user_permissions_resource_server_idx ON "user_permissions" (tenant, "resource_server");
CREATE INDEX user_permissions_permission_idx ON "user_permissions" (tenant, "permission");

CREATE TABLE "identities" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "connection_id" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX identities_user_id_idx ON "identities" (tenant, "user_id");
CREATE INDEX identities_connection_id_idx ON "identities" (tenant, "connection_id");

CREATE TABLE "identifiers" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "connection_id" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX identifiers_user_id_idx ON "identifiers" (tenant, "user_id");
CREATE INDEX identifiers_connection_id_idx ON "identifiers" (tenant, "connection_id");

CREATE TABLE "passwords" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX passwords_user_id_idx ON "passwords" (tenant, "user_id");

CREATE TABLE "signing_keys" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "use" TEXT,
  "created_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX signing_keys_use_idx ON "signing_keys" (tenant, "use");
CREATE INDEX signing_keys_created_at_idx ON "signing_keys" (tenant, "created_at");

CREATE TABLE "sessions" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX sessions_user_id_idx ON "sessions" (tenant, "user_id");
CREATE INDEX sessions_expires_at_idx ON "sessions" ("expires_at");

CREATE TABLE "refresh_tokens" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "family" TEXT,
  "user_id" TEXT,
  "client_id" TEXT,
  "session_id" TEXT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX refresh_tokens_family_idx ON "refresh_tokens" (tenant, "family");
CREATE INDEX refresh_tokens_user_id_idx ON "refresh_tokens" (tenant, "user_id");
CREATE INDEX refresh_tokens_client_id_idx ON "refresh_tokens" (tenant, "client_id");
CREATE INDEX refresh_tokens_session_id_idx ON "refresh_tokens" (tenant, "session_id");
CREATE INDEX refresh_tokens_expires_at_idx ON "refresh_tokens" ("expires_at");

CREATE TABLE "consents" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "user_id" TEXT,
  "client_id" TEXT,
  "audience" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX consents_user_id_key ON "consents" (tenant, "user_id", "client_id", "audience") WHERE "user_id" IS NOT NULL AND "client_id" IS NOT NULL AND "audience" IS NOT NULL;
CREATE INDEX consents_user_id_idx ON "consents" (tenant, "user_id");
CREATE INDEX consents_client_id_idx ON "consents" (tenant, "client_id");
CREATE INDEX consents_audience_idx ON "consents" (tenant, "audience");

CREATE TABLE "once" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "type" TEXT,
  "subject" TEXT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX once_type_idx ON "once" (tenant, "type");
CREATE INDEX once_subject_idx ON "once" (tenant, "subject");
CREATE INDEX once_expires_at_idx ON "once" ("expires_at");

CREATE TABLE "attempts" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "identifier" TEXT,
  "ip" TEXT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX attempts_identifier_idx ON "attempts" (tenant, "identifier");
CREATE INDEX attempts_ip_idx ON "attempts" (tenant, "ip");
CREATE INDEX attempts_expires_at_idx ON "attempts" ("expires_at");

CREATE TABLE "jobs" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "type" TEXT,
  "status" TEXT,
  "created_at" BIGINT,
  "expires_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX jobs_type_idx ON "jobs" (tenant, "type");
CREATE INDEX jobs_status_idx ON "jobs" (tenant, "status");
CREATE INDEX jobs_created_at_idx ON "jobs" (tenant, "created_at");
CREATE INDEX jobs_expires_at_idx ON "jobs" ("expires_at");

CREATE TABLE "outbox" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "topic" TEXT,
  "due_at" BIGINT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX outbox_topic_idx ON "outbox" (tenant, "topic");
CREATE INDEX outbox_due_at_idx ON "outbox" (tenant, "due_at");

CREATE TABLE "logs" (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  version BIGINT NOT NULL,
  doc JSONB NOT NULL,
  "date" BIGINT,
  "type" TEXT,
  "user_id" TEXT,
  "user_name" TEXT,
  "client_id" TEXT,
  "client_name" TEXT,
  "connection" TEXT,
  "connection_id" TEXT,
  "ip" TEXT,
  "hostname" TEXT,
  "audience" TEXT,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX logs_date_idx ON "logs" (tenant, "date");
CREATE INDEX logs_type_idx ON "logs" (tenant, "type");
CREATE INDEX logs_user_id_idx ON "logs" (tenant, "user_id");
CREATE INDEX logs_user_name_idx ON "logs" (tenant, "user_name");
CREATE INDEX logs_client_id_idx ON "logs" (tenant, "client_id");
CREATE INDEX logs_client_name_idx ON "logs" (tenant, "client_name");
CREATE INDEX logs_connection_idx ON "logs" (tenant, "connection");
CREATE INDEX logs_connection_id_idx ON "logs" (tenant, "connection_id");
CREATE INDEX logs_ip_idx ON "logs" (tenant, "ip");
CREATE INDEX logs_hostname_idx ON "logs" (tenant, "hostname");
CREATE INDEX logs_audience_idx ON "logs" (tenant, "audience");
