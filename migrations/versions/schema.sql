-- The tables, indexes, functions and triggers of revision 0008.

CREATE TABLE tenants (
    id text NOT NULL,
    name text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    last_claim_at timestamptz,
    max_queued_jobs integer,
    max_running_jobs integer,
    max_stored_bytes bigint,
    stored_bytes bigint DEFAULT 0 NOT NULL,
    CONSTRAINT pk_tenants PRIMARY KEY (id),
    CONSTRAINT uq_tenants_name UNIQUE (name)
);

CREATE TABLE api_keys (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    hint text NOT NULL,
    digest bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_by text,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT uq_api_keys_digest UNIQUE (digest),
    CONSTRAINT fk_api_keys_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE TABLE files (
    id text NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    storage_key text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    last_used_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_files PRIMARY KEY (id),
    CONSTRAINT fk_files_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE TABLE jobs (
    id text NOT NULL,
    tenant_id text NOT NULL,
    type text NOT NULL,
    type_version text NOT NULL,
    resource text NOT NULL,
    state varchar(16) NOT NULL,
    spec json NOT NULL,
    inputs jsonb DEFAULT '[]' NOT NULL,
    labels jsonb DEFAULT '{}' NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    timeout_seconds double precision NOT NULL,
    retention_seconds double precision NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    not_before timestamptz DEFAULT now() NOT NULL,
    queue_deadline timestamptz,
    rung_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz,
    deleted_at timestamptz,
    lease_until timestamptz,
    worker text,
    progress json,
    result json,
    error json,
    provenance json,
    retry_of text,
    created_by text,
    turn text COLLATE "C" NOT NULL,
    content_key text,
    preview json,
    traceparent text,
    cache_key bytea,
    hit_of text,
    waits_for text,
    purged_at timestamptz,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT fk_jobs_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id),
    CONSTRAINT ck_jobs_finished_when_terminal
        CHECK ((state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'EXPIRED')) = (finished_at IS NOT NULL)),
    CONSTRAINT ck_jobs_lease_only_while_running
        CHECK ((state IN ('RUNNING', 'CANCELLING')) = (lease_until IS NOT NULL)),
    CONSTRAINT ck_jobs_no_error_of_success CHECK (error IS NULL OR state <> 'SUCCEEDED'),
    CONSTRAINT ck_jobs_result_of_success CHECK (result IS NULL OR state = 'SUCCEEDED'),
    CONSTRAINT ck_jobs_state
        CHECK (state IN ('QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'EXPIRED'))
);

CREATE TABLE job_events (
    job_id text NOT NULL,
    seq integer NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    kind text NOT NULL,
    data json NOT NULL,
    terminal boolean DEFAULT false NOT NULL,
    CONSTRAINT pk_job_events PRIMARY KEY (job_id, seq),
    CONSTRAINT fk_job_events_job_id FOREIGN KEY (job_id) REFERENCES jobs(id)
);

CREATE TABLE job_attempts (
    job_id text NOT NULL,
    number integer NOT NULL,
    worker text NOT NULL,
    started_at timestamptz DEFAULT now() NOT NULL,
    ended_at timestamptz,
    outcome text,
    error json,
    trace text,
    CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, number),
    CONSTRAINT fk_job_attempts_job_id FOREIGN KEY (job_id) REFERENCES jobs(id)
);

CREATE TABLE job_checkpoints (
    job_id text NOT NULL,
    key text NOT NULL,
    attempt integer NOT NULL,
    value json NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    storage_key text,
    CONSTRAINT pk_job_checkpoints PRIMARY KEY (job_id, key),
    CONSTRAINT fk_job_checkpoints_job_id FOREIGN KEY (job_id) REFERENCES jobs(id)
);

CREATE TABLE job_children (
    parent_id text NOT NULL,
    child_id text NOT NULL,
    place integer NOT NULL,
    reused boolean NOT NULL,
    CONSTRAINT pk_job_children PRIMARY KEY (parent_id, child_id),
    CONSTRAINT fk_job_children_child_id FOREIGN KEY (child_id) REFERENCES jobs(id),
    CONSTRAINT fk_job_children_parent_id FOREIGN KEY (parent_id) REFERENCES jobs(id)
);

CREATE TABLE artifacts (
    id text NOT NULL,
    tenant_id text NOT NULL,
    job_id text NOT NULL,
    attempt integer NOT NULL,
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL,
    sha256 text NOT NULL,
    storage_key text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_artifacts PRIMARY KEY (id),
    CONSTRAINT fk_artifacts_job_id FOREIGN KEY (job_id) REFERENCES jobs(id),
    CONSTRAINT fk_artifacts_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE TABLE idempotency_keys (
    tenant_id text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    job_id text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, key),
    CONSTRAINT fk_idempotency_keys_job_id FOREIGN KEY (job_id) REFERENCES jobs(id),
    CONSTRAINT fk_idempotency_keys_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE UNLOGGED TABLE cache_entries (
    tenant_id text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    used_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_cache_entries PRIMARY KEY (tenant_id, key),
    CONSTRAINT fk_cache_entries_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE TABLE webhook_endpoints (
    id text NOT NULL,
    tenant_id text NOT NULL,
    url text NOT NULL,
    description text DEFAULT '' NOT NULL,
    events text[] NOT NULL,
    state text DEFAULT 'ACTIVE' NOT NULL,
    disabled_reason text,
    salt text NOT NULL,
    old_salt text,
    old_until timestamptz,
    failing_since timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id),
    CONSTRAINT fk_webhook_endpoints_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id),
    CONSTRAINT ck_webhook_endpoints_state CHECK (state IN ('ACTIVE', 'DISABLED'))
);

CREATE TABLE webhook_deliveries (
    id text NOT NULL,
    tenant_id text NOT NULL,
    endpoint_id text NOT NULL,
    job_id text,
    type text NOT NULL,
    payload text NOT NULL,
    state text DEFAULT 'PENDING' NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    leased_until timestamptz,
    last_attempt_at timestamptz,
    status_code integer,
    error text,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT fk_webhook_deliveries_job_id FOREIGN KEY (job_id) REFERENCES jobs(id),
    CONSTRAINT fk_webhook_deliveries_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id),
    CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED'))
);

CREATE TABLE audit_records (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    key_id text,
    action text NOT NULL,
    object_id text NOT NULL,
    before text,
    after text,
    address text,
    request_id text,
    CONSTRAINT pk_audit_records PRIMARY KEY (id),
    CONSTRAINT fk_audit_records_tenant_id FOREIGN KEY (tenant_id) REFERENCES tenants(id)
);

CREATE INDEX ix_api_keys_tenant_id ON api_keys (tenant_id);
CREATE INDEX ix_artifacts_job_id ON artifacts (job_id, attempt);
CREATE INDEX ix_audit_records_expires_at ON audit_records (expires_at);
CREATE INDEX ix_audit_records_list ON audit_records (tenant_id, id DESC);
CREATE INDEX ix_cache_entries_used_at ON cache_entries (used_at);
CREATE INDEX ix_files_last_used_at ON files (last_used_at);
CREATE INDEX ix_files_list ON files (tenant_id, created_at DESC, id DESC);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE INDEX ix_job_checkpoints_stored ON job_checkpoints (job_id)
    WHERE storage_key IS NOT NULL;
CREATE INDEX ix_job_children_child_id ON job_children (child_id);
CREATE INDEX ix_jobs_bell ON jobs (rung_at)
    WHERE state = 'QUEUED';
CREATE INDEX ix_jobs_cache ON jobs (tenant_id, cache_key)
    WHERE cache_key IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX ix_jobs_expiry ON jobs (expires_at)
    WHERE deleted_at IS NULL;
CREATE INDEX ix_jobs_hit_of ON jobs (hit_of)
    WHERE hit_of IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX ix_jobs_labels ON jobs USING gin (labels);
CREATE INDEX ix_jobs_lease ON jobs (lease_until)
    WHERE state IN ('RUNNING', 'CANCELLING');
CREATE INDEX ix_jobs_list ON jobs (tenant_id, created_at DESC, id DESC)
    WHERE content_key IS NULL;
CREATE INDEX ix_jobs_live_children ON jobs (id)
    WHERE content_key IS NOT NULL AND state IN ('QUEUED', 'RUNNING');
CREATE INDEX ix_jobs_queue ON jobs (tenant_id, resource, priority DESC, turn)
    WHERE state = 'QUEUED' AND waits_for IS NULL;
CREATE INDEX ix_jobs_queue_deadline ON jobs (queue_deadline)
    WHERE state = 'QUEUED' AND queue_deadline IS NOT NULL;
CREATE INDEX ix_jobs_unfinished ON jobs (tenant_id, state)
    WHERE finished_at IS NULL;
CREATE INDEX ix_jobs_unpurged ON jobs (deleted_at)
    WHERE deleted_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX ix_jobs_waiting ON jobs (waits_for)
    WHERE waits_for IS NOT NULL AND finished_at IS NULL;
CREATE INDEX ix_tenants_turn ON tenants (last_claim_at NULLS FIRST, id);
CREATE INDEX ix_webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at)
    WHERE state = 'PENDING';
CREATE INDEX ix_webhook_deliveries_job_id ON webhook_deliveries (job_id);
CREATE INDEX ix_webhook_deliveries_list ON webhook_deliveries (endpoint_id, created_at DESC, id DESC);
CREATE INDEX ix_webhook_endpoints_list ON webhook_endpoints (tenant_id, created_at DESC, id DESC);
CREATE UNIQUE INDEX uq_job_events_one_terminal ON job_events (job_id)
    WHERE terminal;
CREATE UNIQUE INDEX uq_jobs_content_key ON jobs (tenant_id, content_key)
    WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED') AND deleted_at IS NULL;

CREATE FUNCTION api_keys_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('key_changed', '');
  RETURN NULL;
END $$;

-- An audit record is never changed, and deleted only once it has expired.
CREATE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.expires_at < now() THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit record % stays as it is', OLD.id USING ERRCODE = 'check_violation';
END $$;

CREATE FUNCTION job_children_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.parent_id);
  RETURN NULL;
END $$;

-- Makes the state machine a law of the database: no code, ours or a person's at a prompt, can leave
-- a terminal state, skip a transition or lower a counter.
CREATE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
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

-- A job shows how many of its children are in which state, so their changes are its changes.
CREATE FUNCTION jobs_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('job_changed', NEW.id);
  IF NEW.content_key IS NOT NULL AND NEW.state <> OLD.state THEN
    PERFORM pg_notify('job_changed', parent_id) FROM job_children WHERE child_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;

-- Stored bytes are counted with their rows: no code can forget to.
CREATE FUNCTION tenants_count_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE tenants SET stored_bytes = stored_bytes + NEW.size WHERE id = NEW.tenant_id;
  ELSE
    UPDATE tenants SET stored_bytes = stored_bytes - OLD.size WHERE id = OLD.tenant_id;
  END IF;
  RETURN NULL;
END $$;

-- Volatile: every count sees what others have committed by now, also after waiting for them.
-- Far from the limit submissions share the lock: each was counted by a later one or is one of those
-- under way, of which there are no more than connections. Nearer, one goes after another, when all
-- those have ended. The inner block gives the shared lock back, for two that hold it and both want
-- it alone would wait for each other.
CREATE FUNCTION tenants_queued_jobs(tenant text, most bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
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

-- Volatile: every call sees what others have committed by now, also within a statement that waited.
CREATE FUNCTION tenants_running_jobs(tenant text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RETURN (SELECT count(*) FROM jobs WHERE tenant_id = tenant AND finished_at IS NULL
          AND state IN ('RUNNING', 'CANCELLING') AND content_key IS NULL);
END $$;

-- A heartbeat that only extends a lease fires none of these, nor does `last_used_at`, which every key
-- writes once a minute: the columns decide.
CREATE TRIGGER api_keys_notify AFTER DELETE OR UPDATE OF tenant_id, digest, scopes, expires_at, revoked_at ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION api_keys_notify();
CREATE TRIGGER artifacts_count_bytes AFTER INSERT OR DELETE ON artifacts
    FOR EACH ROW EXECUTE FUNCTION tenants_count_bytes();
CREATE TRIGGER audit_records_keep BEFORE DELETE OR UPDATE ON audit_records
    FOR EACH ROW EXECUTE FUNCTION audit_keep();
CREATE TRIGGER files_count_bytes AFTER INSERT OR DELETE ON files
    FOR EACH ROW EXECUTE FUNCTION tenants_count_bytes();
CREATE TRIGGER job_children_notify AFTER INSERT ON job_children
    FOR EACH ROW EXECUTE FUNCTION job_children_notify();
CREATE TRIGGER jobs_guard BEFORE UPDATE OF state, attempt, failures, version, finished_at, result, error, deleted_at ON jobs
    FOR EACH ROW EXECUTE FUNCTION jobs_guard();
CREATE TRIGGER jobs_notify AFTER UPDATE OF version, deleted_at ON jobs
    FOR EACH ROW EXECUTE FUNCTION jobs_notify();
