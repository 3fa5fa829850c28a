-- Rows that give rights. `body` is the whole row as the program means it; the columns beside it are computed from it by
-- PostgreSQL, for look-ups only. `signature` (Ed25519, the rights key) covers the table's name, `body` and `entry_index`.
create table sallyport.principals (
  body jsonb not null,
  entry_index bigint not null check (entry_index >= 0),
  signature bytea not null check (octet_length(signature) = 64),
  id text generated always as (body ->> 'id') stored primary key,
  name text not null generated always as (body ->> 'name') stored unique
);

create table sallyport.resources (
  body jsonb not null,
  entry_index bigint not null check (entry_index >= 0),
  signature bytea not null check (octet_length(signature) = 64),
  id text generated always as (body ->> 'id') stored primary key,
  name text not null generated always as (body ->> 'name') stored unique
);

create table sallyport.grants (
  body jsonb not null,
  entry_index bigint not null check (entry_index >= 0),
  signature bytea not null check (octet_length(signature) = 64),
  id text generated always as (body ->> 'id') stored primary key,
  state text not null generated always as (body ->> 'state') stored
);
create index grants_state on sallyport.grants (state);

create table sallyport.credentials (
  body jsonb not null,
  entry_index bigint not null check (entry_index >= 0),
  signature bytea not null check (octet_length(signature) = 64),
  id text generated always as (body ->> 'id') stored primary key,
  login text not null generated always as (body ->> 'login') stored unique,
  grant_id text not null generated always as (body ->> 'grantId') stored,
  run_id text generated always as (body ->> 'runId') stored
);
create index credentials_grant_id on sallyport.credentials (grant_id);
create index credentials_run_id on sallyport.credentials (run_id) where run_id is not null;

-- What this node has made at resources and not yet dropped. It gives no rights, and is not signed: a row that was added makes
-- the gateway look for a role that is not there, a row that was taken away leaves a role that ends by its own VALID UNTIL.
create table sallyport.provisioned_roles (
  resource text not null,
  role text not null,
  grant_id text not null,
  scope_hash text not null,
  primary key (resource, role)
);

create table sallyport.provisioned_scopes (
  resource text not null,
  hash text not null,
  role text not null,
  primary key (resource, hash)
);
