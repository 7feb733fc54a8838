-- +goose Up
-- Delivered cursor of one platform: everything up to delivered_seq, and the
-- range range_lo .. range_hi beside it (a first page of history was fetched
-- while older messages still wait); range_hi 0 = no range.
CREATE TABLE IF NOT EXISTS cursors (
    user_id         BIGINT  NOT NULL,
    platform        TINYINT NOT NULL,
    conversation_id BIGINT  NOT NULL,
    delivered_seq   BIGINT  NOT NULL DEFAULT 0,
    range_lo        BIGINT  NOT NULL DEFAULT 0,
    range_hi        BIGINT  NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, platform, conversation_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
