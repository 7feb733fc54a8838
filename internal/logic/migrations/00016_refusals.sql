-- +goose Up
-- What was refused lately, and on which connection: a copy of it that comes on another
-- one is not stored, though it may be allowed by then. Of two statements the first
-- may be repeated, for a migration that is cut off between them.
CREATE TABLE IF NOT EXISTS refusals (
    conversation_id BIGINT       NOT NULL,
    sender_id       BIGINT       NOT NULL,
    client_msg_id   BIGINT       NOT NULL,
    origin          VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at_ms           BIGINT       NOT NULL,
    PRIMARY KEY (conversation_id, sender_id, client_msg_id),
    KEY by_age (at_ms)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- When somebody was last refused: for a while his refusals are looked for.
ALTER TABLE conversations ADD COLUMN /*M! IF NOT EXISTS */ refused_at_ms BIGINT NOT NULL DEFAULT 0;
