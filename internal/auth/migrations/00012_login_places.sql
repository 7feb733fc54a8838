-- +goose Up
-- Where a user proved that the account is his, as a MAC of the network, and when
-- last (Unix milliseconds): wrong passwords from elsewhere do not lock him out there.
CREATE TABLE IF NOT EXISTS login_places (
    user_id BIGINT     NOT NULL,
    place   BINARY(16) NOT NULL,
    used_at BIGINT     NOT NULL,
    PRIMARY KEY (user_id, place),
    KEY login_places_by_use (used_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
