-- +goose Up
CREATE TABLE IF NOT EXISTS invites (
    id            BIGINT     NOT NULL,
    token_hash    BINARY(32) NOT NULL,
    group_id      BIGINT     NOT NULL,
    user_id       BIGINT     NOT NULL,
    created_at_ms BIGINT     NOT NULL,
    expires_at_ms BIGINT     NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY token (token_hash)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
