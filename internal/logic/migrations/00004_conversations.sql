-- +goose Up
-- The row whose lock orders a conversation: every send, open, close and change
-- of membership takes it. members_rev counts changes of membership, so that a
-- replica may cache the member list and prove under the lock that it still holds.
CREATE TABLE IF NOT EXISTS conversations (
    id               BIGINT     NOT NULL,
    kind             TINYINT    NOT NULL DEFAULT 0,
    open             TINYINT    NOT NULL DEFAULT 0,
    muted            TINYINT    NOT NULL DEFAULT 0,
    last_seq         BIGINT     NOT NULL DEFAULT 0,
    last_message_id  BIGINT     NOT NULL DEFAULT 0,
    last_at_ms       BIGINT     NOT NULL DEFAULT 0,
    members_rev      BIGINT     NOT NULL DEFAULT 0,
    user_lo          BIGINT     NULL,
    user_hi          BIGINT     NULL,
    relation_version BIGINT     NOT NULL DEFAULT 0,
    created_at_ms    BIGINT     NOT NULL DEFAULT 0,
    PRIMARY KEY (id),
    UNIQUE KEY pair (user_lo, user_hi)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
