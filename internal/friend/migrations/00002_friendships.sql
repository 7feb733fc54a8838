-- +goose Up
-- Two rows per friendship, one for each side's remarks.
CREATE TABLE IF NOT EXISTS friendships (
    user_id    BIGINT       NOT NULL,
    friend_id  BIGINT       NOT NULL,
    id         BIGINT       NOT NULL,
    note       VARCHAR(200) NOT NULL DEFAULT '',
    pinned     TINYINT      NOT NULL DEFAULT 0,
    pinned_at  DATETIME(3)  NULL,
    created_at DATETIME(3)  NOT NULL,
    updated_at DATETIME(3)  NOT NULL,
    PRIMARY KEY (user_id, friend_id),
    UNIQUE KEY friendships_by_id (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
