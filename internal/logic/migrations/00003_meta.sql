-- +goose Up
-- Facts about this life of the database, such as the sync epoch.
CREATE TABLE IF NOT EXISTS meta (
    name  VARCHAR(32)  NOT NULL,
    value VARCHAR(255) NOT NULL,
    PRIMARY KEY (name)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
