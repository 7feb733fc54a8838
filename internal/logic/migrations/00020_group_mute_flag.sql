-- +goose Up
ALTER TABLE conversations DROP COLUMN muted;
