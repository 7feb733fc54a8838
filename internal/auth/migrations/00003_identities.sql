-- +goose Up
-- Who a user is at an OAuth provider: the provider's own number for him.
CREATE TABLE IF NOT EXISTS identities (
    provider   VARCHAR(16) NOT NULL,
    subject    BIGINT      NOT NULL,
    user_id    BIGINT      NOT NULL,
    created_at BIGINT      NOT NULL,
    PRIMARY KEY (provider, subject),
    KEY identities_by_user (user_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
