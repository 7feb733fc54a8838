-- +goose Up
CREATE TABLE IF NOT EXISTS chat_groups (
    id            BIGINT        NOT NULL,
    owner_id      BIGINT        NOT NULL,
    name          VARCHAR(64)   NOT NULL,
    info          VARCHAR(1024) NOT NULL,
    avatar        VARCHAR(1024) NOT NULL,
    theme         VARCHAR(255)  NOT NULL,
    password_hash VARCHAR(255)  NOT NULL DEFAULT '',
    hot           BIGINT        NOT NULL DEFAULT 0,
    announcement  VARCHAR(4096) NOT NULL DEFAULT '',
    created_at_ms BIGINT        NOT NULL,
    PRIMARY KEY (id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
