-- +goose Up
-- Who may see what: a member sees first_seq .. end_seq (0: no end, he is in).
-- The row stays after he left, for what he had not received yet.
CREATE TABLE IF NOT EXISTS members (
    conversation_id BIGINT      NOT NULL,
    user_id         BIGINT      NOT NULL,
    id              BIGINT      NOT NULL,
    role            TINYINT     NOT NULL,
    first_seq       BIGINT      NOT NULL,
    end_seq         BIGINT      NOT NULL DEFAULT 0,
    read_seq        BIGINT      NOT NULL DEFAULT 0,
    joined_at_ms    BIGINT      NOT NULL,
    muted_until_ms  BIGINT      NOT NULL DEFAULT 0,
    remark          VARCHAR(64) NOT NULL DEFAULT '',
    PRIMARY KEY (conversation_id, user_id),
    KEY by_user (user_id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
