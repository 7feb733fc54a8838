-- +goose Up
-- Random secrets that the service made for itself at its first start.
CREATE TABLE IF NOT EXISTS secrets (
    name  VARCHAR(32)   NOT NULL,
    value VARBINARY(64) NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
