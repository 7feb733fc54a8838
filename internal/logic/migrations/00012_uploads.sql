-- +goose Up
CREATE TABLE IF NOT EXISTS uploads (
    object_key    VARCHAR(255) NOT NULL,
    user_id       BIGINT       NOT NULL,
    name          VARCHAR(255) NOT NULL,
    content_type  VARCHAR(127) NOT NULL,
    size          BIGINT       NOT NULL,
    sha256        BINARY(32)   NOT NULL,
    created_at_ms BIGINT       NOT NULL,
    PRIMARY KEY (object_key),
    KEY by_user (user_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
