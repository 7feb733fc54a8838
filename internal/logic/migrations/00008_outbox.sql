-- +goose Up
-- One row per commit batch, written in its transaction and removed once its
-- pushes are published. What is older than a second is published again by any
-- replica. id is the first message id of the batch.
CREATE TABLE IF NOT EXISTS outbox (
    id         BIGINT      NOT NULL,
    ranges     BLOB        NOT NULL,
    created_at DATETIME(3) NOT NULL,
    attempts   INT         NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    KEY by_age (created_at)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
