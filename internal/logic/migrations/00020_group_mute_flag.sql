-- +goose Up
ALTER TABLE conversations DROP COLUMN /*M! IF EXISTS */ muted;
