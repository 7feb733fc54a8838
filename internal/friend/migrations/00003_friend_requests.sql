-- +goose Up
-- waiting is 1 while nobody answered and NULL afterwards, so that the unique
-- key allows one waiting request and any number of answered ones.
-- confirmed: the call that answered has reported success.
CREATE TABLE IF NOT EXISTS friend_requests (
    id           BIGINT        NOT NULL,
    requester_id BIGINT        NOT NULL,
    recipient_id BIGINT        NOT NULL,
    status       TINYINT       NOT NULL DEFAULT 0,
    waiting      TINYINT       NULL     DEFAULT 1,
    confirmed    TINYINT       NOT NULL DEFAULT 0,
    information  VARCHAR(1000) NOT NULL,
    created_at   DATETIME(3)   NOT NULL,
    answered_at  DATETIME(3)   NULL,
    PRIMARY KEY (id),
    UNIQUE KEY friend_requests_waiting (requester_id, recipient_id, waiting),
    KEY friend_requests_sent (requester_id, created_at),
    KEY friend_requests_received (recipient_id, created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
