-- +goose Up
-- Unix ms since when the user may not log in; 0: he may.
ALTER TABLE users ADD COLUMN /*M! IF NOT EXISTS */ banned_at BIGINT NOT NULL DEFAULT 0;
