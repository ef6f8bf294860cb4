-- A database of the last landed head, revision 0008; its rows, in every state, came up from 0001.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.api_keys_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  PERFORM pg_notify('key_changed', '');
  RETURN NULL;
END $$;
CREATE FUNCTION public.audit_keep() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.expires_at < now() THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit record % stays as it is', OLD.id USING ERRCODE = 'check_violation';
END $$;
CREATE FUNCTION public.job_children_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.parent_id);
  RETURN NULL;
END $$;
CREATE FUNCTION public.jobs_guard() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
  terminal CONSTANT text[] := ARRAY['SUCCEEDED', 'FAILED', 'CANCELLED', 'EXPIRED'];
BEGIN
  IF NEW.attempt < OLD.attempt OR NEW.version < OLD.version OR NEW.failures < OLD.failures THEN
    RAISE EXCEPTION 'job %: attempt, failures and version never fall', OLD.id
      USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state = ANY (terminal) AND (
    NEW.state <> OLD.state OR NEW.attempt <> OLD.attempt OR NEW.version <> OLD.version
    OR NEW.finished_at IS DISTINCT FROM OLD.finished_at
    OR NEW.error::text IS DISTINCT FROM OLD.error::text
    OR (NEW.result::text IS DISTINCT FROM OLD.result::text AND NEW.deleted_at IS NULL)
    OR (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS DISTINCT FROM OLD.deleted_at)
  ) THEN
    RAISE EXCEPTION 'job % is % and stays as it is', OLD.id, OLD.state
      USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
    (OLD.state = 'QUEUED' AND NEW.state IN ('RUNNING', 'CANCELLED', 'EXPIRED'))
    OR (OLD.state = 'QUEUED' AND NEW.state = 'SUCCEEDED' AND NEW.hit_of IS NOT NULL)
    OR (OLD.state = 'RUNNING' AND NEW.state IN ('QUEUED', 'SUCCEEDED', 'FAILED', 'CANCELLING'))
    OR (OLD.state = 'CANCELLING' AND NEW.state IN ('CANCELLED', 'SUCCEEDED', 'FAILED'))
  ) THEN
    RAISE EXCEPTION 'job %: % does not follow %', OLD.id, NEW.state, OLD.state
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION public.jobs_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.id);
  IF NEW.content_key IS NOT NULL AND NEW.state <> OLD.state THEN
    PERFORM pg_notify('job_changed', parent_id) FROM job_children WHERE child_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION public.tenants_count_bytes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE tenants SET stored_bytes = stored_bytes + NEW.size WHERE id = NEW.tenant_id;
  ELSE
    UPDATE tenants SET stored_bytes = stored_bytes - OLD.size WHERE id = OLD.tenant_id;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION public.tenants_queued_jobs(tenant text, most bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
  lock bigint := hashtextextended(tenant, 0);
  waiting bigint;
BEGIN
  BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock);
    waiting := (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
                AND state = 'QUEUED' AND content_key IS NULL);
    IF waiting + current_setting('max_connections')::bigint < most THEN
      RETURN waiting;
    END IF;
    RAISE EXCEPTION 'near the limit' USING ERRCODE = 'DA001';
  EXCEPTION WHEN SQLSTATE 'DA001' THEN
    PERFORM pg_advisory_xact_lock(lock);
  END;
  RETURN (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
          AND state = 'QUEUED' AND content_key IS NULL);
END $$;
CREATE FUNCTION public.tenants_running_jobs(tenant text) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
BEGIN
  RETURN (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
          AND state IN ('RUNNING', 'CANCELLING') AND content_key IS NULL);
END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.api_keys (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    hint text NOT NULL,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    created_by text
);
CREATE TABLE public.artifacts (
    id text NOT NULL,
    tenant_id text NOT NULL,
    job_id text NOT NULL,
    attempt integer NOT NULL,
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    storage_key text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.audit_records (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    key_id text,
    action text NOT NULL,
    object_id text NOT NULL,
    before text,
    after text,
    address text,
    request_id text
);
ALTER TABLE public.audit_records ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_records_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE UNLOGGED TABLE public.cache_entries (
    tenant_id text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.files (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    storage_key text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.idempotency_keys (
    tenant_id text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    job_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.job_attempts (
    job_id text NOT NULL,
    number integer NOT NULL,
    worker text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error json,
    trace text
);
CREATE TABLE public.job_checkpoints (
    job_id text NOT NULL,
    key text NOT NULL,
    attempt integer NOT NULL,
    value json NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    storage_key text
);
CREATE TABLE public.job_children (
    parent_id text NOT NULL,
    child_id text NOT NULL,
    place integer NOT NULL,
    reused boolean NOT NULL
);
CREATE TABLE public.job_events (
    job_id text NOT NULL,
    seq integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    kind text NOT NULL,
    data json NOT NULL,
    terminal boolean DEFAULT false NOT NULL
);
CREATE TABLE public.jobs (
    id text NOT NULL,
    tenant_id text NOT NULL,
    type text NOT NULL,
    type_version text NOT NULL,
    resource text NOT NULL,
    state character varying(16) NOT NULL,
    spec json NOT NULL,
    inputs jsonb DEFAULT '[]'::jsonb NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    timeout_seconds double precision NOT NULL,
    retention_seconds double precision NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    queue_deadline timestamp with time zone,
    rung_at timestamp with time zone,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    expires_at timestamp with time zone,
    deleted_at timestamp with time zone,
    lease_until timestamp with time zone,
    worker text,
    progress json,
    result json,
    error json,
    provenance json,
    retry_of text,
    created_by text,
    turn text NOT NULL COLLATE pg_catalog."C",
    content_key text,
    preview json,
    traceparent text,
    cache_key bytea,
    hit_of text,
    waits_for text,
    purged_at timestamp with time zone,
    CONSTRAINT ck_jobs_finished_when_terminal CHECK ((((state)::text = ANY ((ARRAY['SUCCEEDED'::character varying, 'FAILED'::character varying, 'CANCELLED'::character varying, 'EXPIRED'::character varying])::text[])) = (finished_at IS NOT NULL))),
    CONSTRAINT ck_jobs_lease_only_while_running CHECK ((((state)::text = ANY ((ARRAY['RUNNING'::character varying, 'CANCELLING'::character varying])::text[])) = (lease_until IS NOT NULL))),
    CONSTRAINT ck_jobs_no_error_of_success CHECK (((error IS NULL) OR ((state)::text <> 'SUCCEEDED'::text))),
    CONSTRAINT ck_jobs_result_of_success CHECK (((result IS NULL) OR ((state)::text = 'SUCCEEDED'::text))),
    CONSTRAINT ck_jobs_state CHECK (((state)::text = ANY ((ARRAY['QUEUED'::character varying, 'RUNNING'::character varying, 'CANCELLING'::character varying, 'SUCCEEDED'::character varying, 'FAILED'::character varying, 'CANCELLED'::character varying, 'EXPIRED'::character varying])::text[])))
);
CREATE TABLE public.tenants (
    id text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_claim_at timestamp with time zone,
    max_queued_jobs integer,
    max_running_jobs integer,
    max_stored_bytes bigint,
    stored_bytes bigint DEFAULT '0'::bigint NOT NULL
);
CREATE TABLE public.webhook_deliveries (
    id text NOT NULL,
    tenant_id text NOT NULL,
    endpoint_id text NOT NULL,
    job_id text,
    type text NOT NULL,
    payload text NOT NULL,
    state text DEFAULT 'PENDING'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    leased_until timestamp with time zone,
    last_attempt_at timestamp with time zone,
    status_code integer,
    error text,
    CONSTRAINT ck_webhook_deliveries_state CHECK ((state = ANY (ARRAY['PENDING'::text, 'DELIVERED'::text, 'FAILED'::text])))
);
CREATE TABLE public.webhook_endpoints (
    id text NOT NULL,
    tenant_id text NOT NULL,
    url text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    events text[] NOT NULL,
    state text DEFAULT 'ACTIVE'::text NOT NULL,
    disabled_reason text,
    salt text NOT NULL,
    old_salt text,
    old_until timestamp with time zone,
    failing_since timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_webhook_endpoints_state CHECK ((state = ANY (ARRAY['ACTIVE'::text, 'DISABLED'::text])))
);
INSERT INTO public.alembic_version VALUES ('0008');
INSERT INTO public.api_keys VALUES ('key_1', 'ten_1', 'ci', 'das_...1', '\x00', '{jobs:read,admin}', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, NULL);
INSERT INTO public.artifacts VALUES ('art_1', 'ten_1', 'job_4succeeded', 1, 'a.txt', 'text/plain', 1, 'cd', 'jobs/job_4succeeded/1/art_1', '2026-11-28 14:39:04.758169+00');
INSERT INTO public.files VALUES ('file_1', 'ten_1', 'rows.jsonl', 'application/x-ndjson', 3, 'ab', 'files/ten_1/file_1', '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00');
INSERT INTO public.idempotency_keys VALUES ('ten_1', 'k', '\x01', 'job_1queued', '2026-11-28 14:39:04.758169+00');
INSERT INTO public.job_attempts VALUES ('job_2running', 1, 'host:1', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, NULL);
INSERT INTO public.job_attempts VALUES ('job_3cancelling', 1, 'host:2', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, NULL);
INSERT INTO public.job_attempts VALUES ('job_4succeeded', 1, 'host:1', '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', 'succeeded', NULL, NULL);
INSERT INTO public.job_attempts VALUES ('job_5failed', 1, 'host:1', '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', 'failed', NULL, NULL);
INSERT INTO public.job_checkpoints VALUES ('job_2running', 'step', 1, '{"value": 7}', '2026-11-28 14:39:04.758169+00', NULL);
INSERT INTO public.job_events VALUES ('job_1queued', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "QUEUED"}', false);
INSERT INTO public.job_events VALUES ('job_2running', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "RUNNING"}', false);
INSERT INTO public.job_events VALUES ('job_2running', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "RUNNING"}', false);
INSERT INTO public.job_events VALUES ('job_2running', 3, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "RUNNING"}', false);
INSERT INTO public.job_events VALUES ('job_3cancelling', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "CANCELLING"}', false);
INSERT INTO public.job_events VALUES ('job_3cancelling', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "CANCELLING"}', false);
INSERT INTO public.job_events VALUES ('job_3cancelling', 3, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "CANCELLING"}', false);
INSERT INTO public.job_events VALUES ('job_4succeeded', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "SUCCEEDED"}', false);
INSERT INTO public.job_events VALUES ('job_4succeeded', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "SUCCEEDED"}', false);
INSERT INTO public.job_events VALUES ('job_4succeeded', 3, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "SUCCEEDED"}', true);
INSERT INTO public.job_events VALUES ('job_5failed', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "FAILED"}', false);
INSERT INTO public.job_events VALUES ('job_5failed', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "FAILED"}', false);
INSERT INTO public.job_events VALUES ('job_5failed', 3, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "FAILED"}', true);
INSERT INTO public.job_events VALUES ('job_6cancelled', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "CANCELLED"}', false);
INSERT INTO public.job_events VALUES ('job_6cancelled', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "CANCELLED"}', true);
INSERT INTO public.job_events VALUES ('job_7expired', 1, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "EXPIRED"}', false);
INSERT INTO public.job_events VALUES ('job_7expired', 2, '2026-11-28 14:39:04.758169+00', 'state', '{"state" : "EXPIRED"}', true);
INSERT INTO public.jobs VALUES ('job_1queued', 'ten_1', 'toy', '1', 'cpu', 'QUEUED', '{"b": 1, "a": 2}', '[{"id": "file_1", "sha256": "ab", "pointer": "/spec/input"}]', '{"team": "blue"}', 0, 60, 3600, 0, 0, 3, 1, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'job_1queued', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_2running', 'ten_1', 'toy', '1', 'cpu', 'RUNNING', '{}', '[]', '{}', 0, 60, 3600, 1, 0, 3, 3, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, '2026-11-28 15:39:04.758169+00', 'host:1', '{"phase": "p", "current": 1, "total": 2}', NULL, NULL, NULL, NULL, NULL, 'job_2running', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_3cancelling', 'ten_1', 'toy', '1', 'cpu', 'CANCELLING', '{}', '[]', '{}', 0, 60, 3600, 1, 0, 3, 3, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, '2026-11-28 15:39:04.758169+00', 'host:2', NULL, NULL, NULL, NULL, NULL, NULL, 'job_3cancelling', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_4succeeded', 'ten_1', 'toy', '1', 'cpu', 'SUCCEEDED', '{}', '[]', '{}', 0, 60, 3600, 1, 0, 3, 3, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', '2026-11-28 15:39:04.758169+00', NULL, NULL, 'host:1', NULL, '{"steps": 2, "text": ""}', NULL, '{"python": "3.11"}', NULL, NULL, 'job_4succeeded', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_5failed', 'ten_1', 'toy', '1', 'cpu', 'FAILED', '{}', '[]', '{}', 0, 60, 3600, 1, 0, 3, 3, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', '2026-11-28 15:39:04.758169+00', NULL, NULL, 'host:1', NULL, NULL, '{"code": "internal", "message": "m"}', NULL, NULL, NULL, 'job_5failed', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_6cancelled', 'ten_1', 'toy', '1', 'cpu', 'CANCELLED', '{}', '[]', '{}', 0, 60, 3600, 0, 0, 3, 2, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, '2026-11-28 14:39:04.758169+00', '2026-11-28 15:39:04.758169+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'job_6cancelled', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs VALUES ('job_7expired', 'ten_1', 'toy', '1', 'cpu', 'EXPIRED', '{}', '[]', '{}', 0, 60, 3600, 0, 0, 3, 2, '2026-11-28 14:39:04.758169+00', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, '2026-11-28 14:39:04.758169+00', '2026-11-28 15:39:04.758169+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'job_7expired', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.tenants VALUES ('ten_1', 'acme', '2026-11-28 14:39:04.758169+00', NULL, NULL, NULL, NULL, 4);
SELECT pg_catalog.setval('public.audit_records_id_seq', 1, false);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT pk_api_keys PRIMARY KEY (id);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT pk_artifacts PRIMARY KEY (id);
ALTER TABLE ONLY public.audit_records
    ADD CONSTRAINT pk_audit_records PRIMARY KEY (id);
ALTER TABLE ONLY public.cache_entries
    ADD CONSTRAINT pk_cache_entries PRIMARY KEY (tenant_id, key);
ALTER TABLE ONLY public.files
    ADD CONSTRAINT pk_files PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, key);
ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.job_checkpoints
    ADD CONSTRAINT pk_job_checkpoints PRIMARY KEY (job_id, key);
ALTER TABLE ONLY public.job_children
    ADD CONSTRAINT pk_job_children PRIMARY KEY (parent_id, child_id);
ALTER TABLE ONLY public.job_events
    ADD CONSTRAINT pk_job_events PRIMARY KEY (job_id, seq);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT pk_jobs PRIMARY KEY (id);
ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT pk_tenants PRIMARY KEY (id);
ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id);
ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT uq_api_keys_digest UNIQUE (digest);
ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT uq_tenants_name UNIQUE (name);
CREATE INDEX ix_api_keys_tenant_id ON public.api_keys USING btree (tenant_id);
CREATE INDEX ix_artifacts_job_id ON public.artifacts USING btree (job_id, attempt);
CREATE INDEX ix_audit_records_expires_at ON public.audit_records USING btree (expires_at);
CREATE INDEX ix_audit_records_list ON public.audit_records USING btree (tenant_id, id DESC);
CREATE INDEX ix_cache_entries_used_at ON public.cache_entries USING btree (used_at);
CREATE INDEX ix_files_last_used_at ON public.files USING btree (last_used_at);
CREATE INDEX ix_files_list ON public.files USING btree (tenant_id, created_at DESC, id DESC);
CREATE INDEX ix_idempotency_keys_created_at ON public.idempotency_keys USING btree (created_at);
CREATE INDEX ix_job_checkpoints_stored ON public.job_checkpoints USING btree (job_id) WHERE (storage_key IS NOT NULL);
CREATE INDEX ix_job_children_child_id ON public.job_children USING btree (child_id);
CREATE INDEX ix_jobs_bell ON public.jobs USING btree (rung_at) WHERE ((state)::text = 'QUEUED'::text);
CREATE INDEX ix_jobs_cache ON public.jobs USING btree (tenant_id, cache_key) WHERE ((cache_key IS NOT NULL) AND (deleted_at IS NULL));
CREATE INDEX ix_jobs_expiry ON public.jobs USING btree (expires_at) WHERE (deleted_at IS NULL);
CREATE INDEX ix_jobs_hit_of ON public.jobs USING btree (hit_of) WHERE ((hit_of IS NOT NULL) AND (deleted_at IS NULL));
CREATE INDEX ix_jobs_labels ON public.jobs USING gin (labels);
CREATE INDEX ix_jobs_lease ON public.jobs USING btree (lease_until) WHERE ((state)::text = ANY ((ARRAY['RUNNING'::character varying, 'CANCELLING'::character varying])::text[]));
CREATE INDEX ix_jobs_list ON public.jobs USING btree (tenant_id, created_at DESC, id DESC) WHERE (content_key IS NULL);
CREATE INDEX ix_jobs_live_children ON public.jobs USING btree (id) WHERE ((content_key IS NOT NULL) AND ((state)::text = ANY ((ARRAY['QUEUED'::character varying, 'RUNNING'::character varying])::text[])));
CREATE INDEX ix_jobs_queue ON public.jobs USING btree (tenant_id, resource, priority DESC, turn) WHERE (((state)::text = 'QUEUED'::text) AND (waits_for IS NULL));
CREATE INDEX ix_jobs_queue_deadline ON public.jobs USING btree (queue_deadline) WHERE (((state)::text = 'QUEUED'::text) AND (queue_deadline IS NOT NULL));
CREATE INDEX ix_jobs_unfinished ON public.jobs USING btree (tenant_id, state) WHERE (finished_at IS NULL);
CREATE INDEX ix_jobs_unpurged ON public.jobs USING btree (deleted_at) WHERE ((deleted_at IS NOT NULL) AND (purged_at IS NULL));
CREATE INDEX ix_jobs_waiting ON public.jobs USING btree (waits_for) WHERE ((waits_for IS NOT NULL) AND (finished_at IS NULL));
CREATE INDEX ix_tenants_turn ON public.tenants USING btree (last_claim_at NULLS FIRST, id);
CREATE INDEX ix_webhook_deliveries_due ON public.webhook_deliveries USING btree (endpoint_id, due_at) WHERE (state = 'PENDING'::text);
CREATE INDEX ix_webhook_deliveries_job_id ON public.webhook_deliveries USING btree (job_id);
CREATE INDEX ix_webhook_deliveries_list ON public.webhook_deliveries USING btree (endpoint_id, created_at DESC, id DESC);
CREATE INDEX ix_webhook_endpoints_list ON public.webhook_endpoints USING btree (tenant_id, created_at DESC, id DESC);
CREATE UNIQUE INDEX uq_job_events_one_terminal ON public.job_events USING btree (job_id) WHERE terminal;
CREATE UNIQUE INDEX uq_jobs_content_key ON public.jobs USING btree (tenant_id, content_key) WHERE (((state)::text = ANY ((ARRAY['QUEUED'::character varying, 'RUNNING'::character varying, 'CANCELLING'::character varying, 'SUCCEEDED'::character varying])::text[])) AND (deleted_at IS NULL));
CREATE TRIGGER api_keys_notify AFTER DELETE OR UPDATE OF tenant_id, digest, scopes, expires_at, revoked_at ON public.api_keys FOR EACH STATEMENT EXECUTE FUNCTION public.api_keys_notify();
CREATE TRIGGER artifacts_count_bytes AFTER INSERT OR DELETE ON public.artifacts FOR EACH ROW EXECUTE FUNCTION public.tenants_count_bytes();
CREATE TRIGGER audit_records_keep BEFORE DELETE OR UPDATE ON public.audit_records FOR EACH ROW EXECUTE FUNCTION public.audit_keep();
CREATE TRIGGER files_count_bytes AFTER INSERT OR DELETE ON public.files FOR EACH ROW EXECUTE FUNCTION public.tenants_count_bytes();
CREATE TRIGGER job_children_notify AFTER INSERT ON public.job_children FOR EACH ROW EXECUTE FUNCTION public.job_children_notify();
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, attempt, failures, version, finished_at, result, error, deleted_at ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.jobs_guard();
CREATE TRIGGER jobs_notify AFTER UPDATE OF version, deleted_at ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.jobs_notify();
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT fk_api_keys_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT fk_artifacts_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT fk_artifacts_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.audit_records
    ADD CONSTRAINT fk_audit_records_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.cache_entries
    ADD CONSTRAINT fk_cache_entries_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.files
    ADD CONSTRAINT fk_files_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT fk_idempotency_keys_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT fk_idempotency_keys_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT fk_job_attempts_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.job_checkpoints
    ADD CONSTRAINT fk_job_checkpoints_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.job_children
    ADD CONSTRAINT fk_job_children_child_id FOREIGN KEY (child_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.job_children
    ADD CONSTRAINT fk_job_children_parent_id FOREIGN KEY (parent_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.job_events
    ADD CONSTRAINT fk_job_events_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT fk_jobs_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT fk_webhook_deliveries_job_id FOREIGN KEY (job_id) REFERENCES public.jobs(id);
ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT fk_webhook_deliveries_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT fk_webhook_endpoints_tenant_id FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
