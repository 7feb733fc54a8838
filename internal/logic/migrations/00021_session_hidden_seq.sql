-- +goose Up
-- The last seq of a group when its session was hidden: the next message brings it back.
ALTER TABLE sessions ADD COLUMN /*M! IF NOT EXISTS */ hidden_seq BIGINT NOT NULL DEFAULT 0;
