-- What a service of revision 0001 may hold: every table, every state.
INSERT INTO tenants (id, name) VALUES ('ten_1', 'acme');
INSERT INTO api_keys (id, tenant_id, name, hint, digest, scopes)
  VALUES ('key_1', 'ten_1', 'ci', 'das_...1', '\x00', ARRAY['jobs:read', 'admin']);
INSERT INTO files (id, tenant_id, name, media_type, size, sha256, storage_key)
  VALUES ('file_1', 'ten_1', 'rows.jsonl', 'application/x-ndjson', 3, 'ab', 'files/ten_1/file_1');

INSERT INTO jobs (id, tenant_id, type, type_version, resource, state, spec, inputs, labels,
                  timeout_seconds, retention_seconds, max_attempts, attempt, version, result, error,
                  progress, provenance, lease_until, worker, started_at, finished_at, expires_at)
VALUES
  ('job_1queued', 'ten_1', 'toy', '1', 'cpu', 'QUEUED', '{"b": 1, "a": 2}',
   '[{"pointer": "/spec/input", "id": "file_1", "sha256": "ab"}]', '{"team": "blue"}',
   60, 3600, 3, 0, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  ('job_2running', 'ten_1', 'toy', '1', 'cpu', 'RUNNING', '{}', '[]', '{}',
   60, 3600, 3, 1, 3, NULL, NULL, '{"phase": "p", "current": 1, "total": 2}', NULL,
   now() + interval '1 h', 'host:1', now(), NULL, NULL),
  ('job_3cancelling', 'ten_1', 'toy', '1', 'cpu', 'CANCELLING', '{}', '[]', '{}',
   60, 3600, 3, 1, 3, NULL, NULL, NULL, NULL, now() + interval '1 h', 'host:2', now(), NULL, NULL),
  ('job_4succeeded', 'ten_1', 'toy', '1', 'cpu', 'SUCCEEDED', '{}', '[]', '{}',
   60, 3600, 3, 1, 3, '{"steps": 2, "text": ""}', NULL, NULL, '{"python": "3.11"}', NULL, 'host:1',
   now(), now(), now() + interval '1 h'),
  ('job_5failed', 'ten_1', 'toy', '1', 'cpu', 'FAILED', '{}', '[]', '{}',
   60, 3600, 3, 1, 3, NULL, '{"code": "internal", "message": "m"}', NULL, NULL, NULL, 'host:1',
   now(), now(), now() + interval '1 h'),
  ('job_6cancelled', 'ten_1', 'toy', '1', 'cpu', 'CANCELLED', '{}', '[]', '{}',
   60, 3600, 3, 0, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, now(), now() + interval '1 h'),
  ('job_7expired', 'ten_1', 'toy', '1', 'cpu', 'EXPIRED', '{}', '[]', '{}',
   60, 3600, 3, 0, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, now(), now() + interval '1 h');

INSERT INTO job_events (job_id, seq, kind, data, terminal)
  SELECT id, seq, 'state', json_build_object('state', state),
         seq = version AND finished_at IS NOT NULL
  FROM jobs, generate_series(1, version) AS seq;
INSERT INTO job_attempts (job_id, number, worker, ended_at, outcome)
  SELECT id, 1, worker, finished_at, CASE WHEN finished_at IS NOT NULL THEN lower(state) END
  FROM jobs WHERE attempt = 1;
INSERT INTO job_checkpoints (job_id, key, attempt, value)
  VALUES ('job_2running', 'step', 1, '{"value": 7}');
INSERT INTO artifacts (id, tenant_id, job_id, attempt, name, media_type, size, sha256, storage_key)
  VALUES ('art_1', 'ten_1', 'job_4succeeded', 1, 'a.txt', 'text/plain', 1, 'cd',
          'jobs/job_4succeeded/1/art_1');
INSERT INTO idempotency_keys (tenant_id, key, request_digest, job_id)
  VALUES ('ten_1', 'k', '\x01', 'job_1queued');
