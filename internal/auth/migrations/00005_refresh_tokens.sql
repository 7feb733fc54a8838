-- +goose Up
-- SHA-256 of every refresh token, used ones too until they expire: seeing one of
-- those again is how a theft shows. used_at 0 = not used. Unix milliseconds.
CREATE TABLE IF NOT EXISTS refresh_tokens (
    hash       BINARY(32) NOT NULL,
    session_id CHAR(32)   NOT NULL,
    expires_at BIGINT     NOT NULL,
    used_at    BIGINT     NOT NULL DEFAULT 0,
    PRIMARY KEY (hash),
    KEY refresh_tokens_by_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
