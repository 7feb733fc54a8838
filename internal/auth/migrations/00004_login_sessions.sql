-- +goose Up
-- One row per login. ended_at 0 = live. Times are Unix milliseconds.
CREATE TABLE IF NOT EXISTS login_sessions (
    id         CHAR(32) NOT NULL,
    user_id    BIGINT   NOT NULL,
    created_at BIGINT   NOT NULL,
    used_at    BIGINT   NOT NULL,
    expires_at BIGINT   NOT NULL,
    ended_at   BIGINT   NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    KEY login_sessions_by_user (user_id, ended_at),
    KEY login_sessions_by_expiry (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
