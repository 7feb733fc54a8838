-- +goose Up
-- One row per unordered pair; its lock orders all changes of the pair.
-- request_id and requester_id: the request that made the present friendship.
CREATE TABLE IF NOT EXISTS friend_relations (
    lo_user_id   BIGINT      NOT NULL,
    hi_user_id   BIGINT      NOT NULL,
    version      BIGINT      NOT NULL DEFAULT 0,
    is_open      TINYINT     NOT NULL DEFAULT 0,
    pending      TINYINT     NOT NULL DEFAULT 0,
    retry_at     DATETIME(3) NOT NULL DEFAULT '2000-01-01 00:00:00.000',
    request_id   BIGINT      NOT NULL DEFAULT 0,
    requester_id BIGINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (lo_user_id, hi_user_id),
    KEY friend_relations_by_retry (pending, retry_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
