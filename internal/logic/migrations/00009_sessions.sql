-- +goose Up
-- A user's conversation list (the public protocol's sessions). kind 1: target
-- is a user; kind 2: target is a group.
CREATE TABLE IF NOT EXISTS sessions (
    id              BIGINT       NOT NULL,
    owner_id        BIGINT       NOT NULL,
    kind            TINYINT      NOT NULL,
    target_id       BIGINT       NOT NULL,
    pinned          TINYINT      NOT NULL DEFAULT 0,
    pinned_at_ms    BIGINT       NOT NULL DEFAULT 0,
    note            VARCHAR(255) NOT NULL DEFAULT '',
    hidden          TINYINT      NOT NULL DEFAULT 0,
    created_at_ms   BIGINT       NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY owner_target (owner_id, kind, target_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
