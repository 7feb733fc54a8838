-- +goose Up
-- Ids are handed out in blocks: each replica takes a block in one short transaction.
CREATE TABLE IF NOT EXISTS id_blocks (
    name    VARCHAR(32) NOT NULL,
    next_id BIGINT      NOT NULL,
    PRIMARY KEY (name)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
