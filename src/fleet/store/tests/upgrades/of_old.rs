//! What a database of each version held that an earlier one could not: at least a row in each table, and something in each
//! column that was added. Run when the tables have just come to that version.

/// A full hour, from which the test's times are counted: milliseconds since 1970.
pub const START: i64 = 1_800_000_000_000;
/// The administrator's password.
pub const PASSWORD: &str = "of before the upgrade";
/// The box's token.
pub const TOKEN: &str = "the-token-of-box-a";
/// A refresh token.
pub const REFRESH: &str = "the-session-of-before";
/// An enrolment code that nobody has used.
pub const CODE: &str = "0000-1111-2222-3333";
/// An API key.
pub const KEY: &str = "r58k_of-before";
/// A support bundle.
pub const BUNDLE: &str = "01HZZZZZZZZZZZZZZZZZZZZZZZ";

/// Version and what is written then. `{password}` and its like stand for hashes of what is above.
pub const OF_OLD: [(i64, &str); 15] = [
    (1, FLOOR),
    (4, SUMS),
    (10, "INSERT INTO api_keys (id, org, user_id, name, hash, scopes, created_at, expires_at, last_used_at) VALUES \
          ('k1', 'default', 'u1', 'Key', '{key}', '[\"devices:read\"]', 3, NULL, 4);"),
    (11, "INSERT INTO device_tags (org, tag, device_id) VALUES ('default', 'stage', 'a');
          UPDATE devices SET old_token_hash = 'before', old_token_until = 5 WHERE id = 'a';"),
    (12, "INSERT INTO command_groups (id, org, type, payload, tag, total, notes, created_by, created_at) VALUES \
          ('g1', 'default', 'identify', '{}', 'stage', 1, 'all', 'user:x', 6);
          UPDATE commands SET precond = '{\"not_recording\": true}', group_id = 'g1', handed_at = 7 WHERE id = 'c2';
          INSERT INTO idempotency_keys (org, key, hash, target, created_at) VALUES ('default', 'once', 'h', 'c2', 8);"),
    (13, "INSERT INTO config_versions (device_id, ver, document, notes, restores, command_id, created_by, created_at) VALUES \
          ('a', 7, '{\"inputs\": {}}', 'first', NULL, 'c2', 'user:x', 9);
          UPDATE commands SET config_ver = 7 WHERE id = 'c2';"),
    (14, RELEASES),
    (15, "INSERT INTO support_bundles (id, org, device_id, state, size_bytes, sha256, received_bytes, error, created_by, \
          created_at, completed_at, expires_at) VALUES \
          ('01HZZZZZZZZZZZZZZZZZZZZZZZ', 'default', 'a', 'ready', 3, 'sum', 3, NULL, 'user:x', 14, 15, 9000000000000);"),
    (30, "UPDATE enrolment_codes SET max_uses = 5, uses = 2 WHERE id = 'e2';"),
    (31, ALERTS),
    (32, RECEIVERS),
    (47, "UPDATE device_state SET presence = 'offline', presence_at = 30 WHERE device_no = 1;"),
    (48, "INSERT INTO boot_clocks (device_no, boot_seq, began) VALUES (1, 1, 1799999000000);"),
    (49, "INSERT INTO heartbeats_overdue (device_no, ts, boot_seq, seq, cpu_percent, merged_at) VALUES \
          (1, 1799000000000, 1, 0, 5.0, 1800000000000);"),
    (58, "INSERT INTO heard (at, devices) VALUES (31, '[1]');"),
];

const FLOOR: &str = "
    INSERT INTO organizations (id, name, created_at) VALUES ('default', 'Default', 1);
    INSERT INTO users (id, org, email, name, role, password_hash, is_active, generation, created_at, last_login_at) VALUES
    ('u1', 'default', 'old@r58.example', 'Old', 'admin', '{password}', TRUE, 3, 1, 2);
    INSERT INTO refresh_tokens (hash, user_id, family, issued_at, expires_at) VALUES
    ('{refresh}', 'u1', 'f1', 1, 9000000000000);
    INSERT INTO enrolment_codes (id, org, code_hash, note, created_by, created_at, expires_at, used_at, used_by) VALUES
    ('e1', 'default', 'used', 'first', 'user:x', 1, 2, 2, 'a'),
    ('e2', 'default', '{code}', NULL, 'user:x', 1, 9000000000000, NULL, NULL);
    INSERT INTO devices (id, no, org, name, platform, arch, serial_number, mac_address, registered_version, capabilities, location, \
    tags, metadata, notes, update_channel, target_version, token_hash, command_seq, registered_at, updated_at, \
    decommissioned_at) VALUES
    ('a', 1, 'default', 'Box ä', 'linux', 'aarch64', 's1', '02:00:00:00:00:01', '0.0.1', '{\"inputs\": 4}', 'hall', '[\"stage\"]', \
    '{\"rack\": 1}', 'spare', 'stable', '0.0.2', '{token}', 2, 1, 1, NULL),
    ('gone', 2, 'default', 'Gone', 'linux', 'aarch64', NULL, NULL, NULL, NULL, NULL, '[]', '{}', NULL, 'stable', NULL, NULL, 0, 1, 1, 2);
    UPDATE counters SET value = 2 WHERE name IN ('device', 'audit');
    INSERT INTO device_state (device_no, presence, presence_reason, presence_at, presence_boot, presence_conn, last_seen, \
    interval_s, heartbeat_boot, heartbeat_seq, heartbeat_ts, heartbeat, reported_boot, reported_ver, reported_ts, reported, \
    caps) VALUES
    (1, 'online', NULL, 1, 1, 1, 1800000060000, 60, 1, 2, 1800000060000, '{\"seq\": 2}', 1, 1, 1, '{\"scene\": \"quad\"}', '{}'),
    (2, 'unknown', NULL, NULL, -1, -1, NULL, NULL, -1, -1, NULL, NULL, -1, -1, NULL, NULL, NULL);
    INSERT INTO heartbeats (device_no, ts, boot_seq, seq, received_at, cpu_percent, mem_percent, body) VALUES
    (1, 1800000000000, 1, 1, 1800000000000, 20.0, 1.5, '{}'), (1, 1800000060000, 1, 2, 1800000060000, 40.0, NULL, '{\"seq\": 2}');
    INSERT INTO telemetry (device_no, stream, boot_seq, seq, ts, received_at, body) VALUES (1, 'evt/take', 1, 1, 1, 1, '{}');
    INSERT INTO stream_acks (device_no, stream, seq) VALUES (1, 'hb', 2), (1, 'evt', 7);
    INSERT INTO commands (id, org, device_id, seq, type, payload, priority, state, rev, attempts, progress, code, reason, result, \
    notes, message, hash, retained, cancel_requested, created_by, created_at, expires_at, published_at, finished_at) VALUES
    ('c1', 'default', 'a', 1, 'identify', '{}', 5, 'published', -1, 0, NULL, NULL, NULL, NULL, NULL, 'signed', NULL, 'publish', \
    FALSE, 'user:x', 1, 9000000000000, NULL, NULL),
    ('c2', 'default', 'a', 2, 'identify', '{\"seconds\": 1}', 7, 'succeeded', 3, 1, 1.0, NULL, NULL, '{\"done\": 1}', 'seen', NULL, \
    'sha256:x', 'none', FALSE, 'user:x', 2, 9000000000000, 3, 4);
    INSERT INTO command_history (command_id, n, state, rev, ts, reason) VALUES ('c2', 1, 'queued', -1, 2, NULL), \
    ('c2', 2, 'succeeded', 3, 4, NULL);
    INSERT INTO server_keys (kid, public_key, created_at, retired_at) VALUES ('old', 'WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY=', 1, 2);
    INSERT INTO audit_log (n, org, at, actor, action, target, detail) VALUES
    (1, 'default', 1, 'server', 'user.create', 'u1', 'admin'), (2, 'default', 2, 'user:x', 'device.decommission', 'gone', NULL);";

/// An hour of two days before.
const SUMS: &str = "
    INSERT INTO heartbeats_minute (device_no, ts, cpu_min, cpu_max, cpu_sum, cpu_count, cpu_latest) VALUES
    (1, 1799827200000, 10.0, 30.0, 60.0, 3, 20.0);
    INSERT INTO heartbeats_hour (device_no, ts, cpu_min, cpu_max, cpu_sum, cpu_count, cpu_latest) VALUES
    (1, 1799827200000, 10.0, 30.0, 60.0, 3, 20.0);
    INSERT INTO summed_up (name, upto, device_no) VALUES ('hours', 1800000000000, -1);
    INSERT INTO heartbeats_late (device_no, hour, n) VALUES (1, 1800000000000, 1);
    INSERT INTO leases (name, holder, term, expires_at) VALUES ('leader', 'of old', 3, 1);";

const RELEASES: &str = "
    INSERT INTO release_keys (id, org, name, public_key, created_by, created_at) VALUES
    ('rk1', 'default', 'Makers', 'public', 'user:x', 10);
    INSERT INTO releases (org, version, arch, channel, artifact_url, signature_url, checksum_sha256, size_bytes, min_version, \
    changelog, signature, key_id, created_by, created_at, published_at) VALUES
    ('default', '1.0.0', 'any', 'stable', 'https://r.example/1', NULL, 'sum', 9, NULL, 'news', 'sig', 'rk1', 'user:x', 10, 11);
    INSERT INTO rollouts (id, org, version, tag, channel, percent, abort_percent, at_once, state, reason, created_by, created_at, \
    updated_at) VALUES ('ro1', 'default', '1.0.0', 'stage', 'stable', 50, 10, 5, 'paused', NULL, 'user:x', 12, 13);
    INSERT INTO rollout_devices (rollout_id, device_id, command_id) VALUES ('ro1', 'a', 'c2');";

const ALERTS: &str = "
    INSERT INTO alert_rules (id, org, kind, name, threshold, clear_threshold, for_s, severity, tag, enabled, created_at, \
    updated_at) VALUES ('ru1', 'default', 'temperature', 'Hot', 80.0, 70.0, 60, 'warning', NULL, TRUE, 16, 16);
    INSERT INTO alerts (id, org, rule_id, rule_name, kind, severity, device_id, device_no, subject, state, value, detail, since, \
    clear_since, due_at, raised_at, acknowledged_at, acknowledged_by, note, resolved_at, resolution, notify_at, notified, \
    updated_at) VALUES ('al1', 'default', 'ru1', 'Hot', 'temperature', 'warning', 'a', 1, '', 'acknowledged', 91.5, 'hot', 17, NULL, \
    NULL, 18, 19, 'user:x', 'fan', NULL, NULL, NULL, TRUE, 19);
    INSERT INTO alert_memory (device_no, body) VALUES (1, '{}');
    INSERT INTO silences (id, org, rule_id, device_id, tag, reason, created_by, created_at, starts_at, ends_at) VALUES
    ('si1', 'default', 'ru1', 'a', NULL, 'load-in', 'user:x', 20, 20, 9000000000000);";

const RECEIVERS: &str = "
    INSERT INTO alert_receivers (id, org, name, kind, target, secret, min_severity, enabled, created_at, updated_at) VALUES
    ('re1', 'default', 'Pager', 'webhook', 'https://hooks.example/of-old', 'sixteen bytes and more', 'critical', TRUE, 21, 21);
    INSERT INTO alert_deliveries (id, org, receiver_id, state, test, attempts, next_at, created_at, sent_at, error, body) VALUES
    ('de1', 'default', 're1', 'sent', FALSE, 1, NULL, 8999999999999, 8999999999999, NULL, '{}');
    INSERT INTO alert_delivery_items (delivery_id, alert_id, event) VALUES ('de1', 'al1', 'firing');";

/// A chain of one change, its head and a checkpoint, of an organization that has no changes of before there were chains.
pub fn chained(org: &str, change: &crate::audit::Change) -> String {
    let crate::audit::Change { seq, at_ms, actor, action, target, hash, .. } = change;
    format!(
        "INSERT INTO organizations (id, name, created_at) VALUES ('{org}', 'Other', 5);
         INSERT INTO audit_log (org, seq, at, actor, action, target, detail, hash) VALUES
         ('{org}', {seq}, {at_ms}, '{actor}', '{action}', '{target}', NULL, '{hash}');
         INSERT INTO audit_heads (org, seq, hash, signed_seq) VALUES ('{org}', {seq}, '{hash}', {seq});
         INSERT INTO audit_checkpoints (org, seq, hash, at, sig) VALUES ('{org}', {seq}, '{hash}', 6, 'signed');"
    )
}
