-- +goose Up
-- email names the account at login, in lower case; NULL for accounts made by a
-- provider, whose address (shown_email) is for display only: nobody proved it to us.
-- name_key is the name folded, so that names differ by more than case and width.
-- password is a PHC string, '' = no password login.
-- Times ending in _at are Unix milliseconds; not_before, token_at and token_until
-- are the Unix seconds of tokens: none issued earlier counts, the latest issued,
-- the latest end of any.
CREATE TABLE IF NOT EXISTS users (
    id            BIGINT       NOT NULL,
    name          VARCHAR(64)  NOT NULL,
    name_key      VARCHAR(255) NOT NULL,
    email         VARCHAR(254) NULL,
    shown_email   VARCHAR(254) NOT NULL DEFAULT '',
    password      VARCHAR(255) NOT NULL DEFAULT '',
    avatar        VARCHAR(512) NOT NULL DEFAULT '',
    bio           VARCHAR(512) NOT NULL DEFAULT '',
    sex           TINYINT      NOT NULL DEFAULT 0,
    age           SMALLINT     NOT NULL DEFAULT 0,
    client_type   TINYINT      NOT NULL DEFAULT 1,
    is_bot        TINYINT      NOT NULL DEFAULT 0,
    created_at    BIGINT       NOT NULL,
    last_login_at BIGINT       NOT NULL DEFAULT 0,
    not_before    BIGINT       NOT NULL DEFAULT 0,
    token_at      BIGINT       NOT NULL DEFAULT 0,
    token_until   BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY users_by_email (email),
    UNIQUE KEY users_by_name (name_key),
    KEY users_by_login (is_bot, last_login_at, id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
