-- +goose Up
-- What gateways must refuse though its signature is good. Ids rise in the order
-- of commit, so a reader's cursor misses nothing. Unix seconds.
CREATE TABLE IF NOT EXISTS revocations (
    id         BIGINT      NOT NULL,
    user_id    BIGINT      NOT NULL,
    session_id VARCHAR(32) NOT NULL DEFAULT '',
    not_before BIGINT      NOT NULL,
    expires_at BIGINT      NOT NULL,
    PRIMARY KEY (id),
    KEY revocations_by_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
