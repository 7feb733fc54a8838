-- +goose Up
-- Where the next block of ids starts, by kind. A row's lock makes its ids rise
-- in the order of commit where the taker keeps it until then (revocations).
CREATE TABLE IF NOT EXISTS id_blocks (
    name    VARCHAR(32) NOT NULL,
    next_id BIGINT      NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
