-- +goose Up
-- Ed25519 seeds of the access tokens' keys, two at most. A key verifies from the
-- start and signs from active_at (Unix milliseconds) until a newer one does.
CREATE TABLE IF NOT EXISTS signing_keys (
    kid       VARCHAR(64)   NOT NULL,
    seed      VARBINARY(32) NOT NULL,
    active_at BIGINT        NOT NULL,
    PRIMARY KEY (kid)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
