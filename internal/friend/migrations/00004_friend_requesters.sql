-- +goose Up
-- A row to lock while a user's requests of the last day are counted, so that
-- parallel requests cannot pass the limit together.
CREATE TABLE IF NOT EXISTS friend_requesters (
    user_id BIGINT NOT NULL,
    PRIMARY KEY (user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
