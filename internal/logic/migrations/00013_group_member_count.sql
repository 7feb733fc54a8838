-- +goose Up
-- Counted under the conversation's row lock, so that lists of groups need not count.
ALTER TABLE chat_groups ADD COLUMN /*M! IF NOT EXISTS */ member_count INT NOT NULL DEFAULT 0;
