-- +goose Up
-- A mute of a whole group ends by itself, as one of a member does.
ALTER TABLE conversations ADD COLUMN /*M! IF NOT EXISTS */ muted_until_ms BIGINT NOT NULL DEFAULT 0;
