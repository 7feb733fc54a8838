-- +goose Up
-- The truth. (conversation, seq) is the order of record; sender_key is what
-- makes a send idempotent for as long as the message is kept.
CREATE TABLE IF NOT EXISTS messages (
    conversation_id BIGINT     NOT NULL,
    seq             BIGINT     NOT NULL,
    id              BIGINT     NOT NULL,
    sender_id       BIGINT     NOT NULL,
    client_msg_id   BIGINT     NOT NULL,
    content_hash    BINARY(16) NOT NULL,
    type            SMALLINT   NOT NULL,
    status          TINYINT    NOT NULL DEFAULT 1,
    platform        TINYINT    NOT NULL,
    sent_at_ms      BIGINT     NOT NULL,
    text            MEDIUMTEXT NOT NULL,
    data_json       MEDIUMTEXT NOT NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE KEY sender_key (conversation_id, sender_id, client_msg_id),
    UNIQUE KEY message_id (id)
) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
