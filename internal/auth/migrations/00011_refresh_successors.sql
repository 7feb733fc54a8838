-- +goose Up
-- The hash of the token that a used one was exchanged for last; NULL: for none.
ALTER TABLE refresh_tokens ADD COLUMN /*M! IF NOT EXISTS */ successor BINARY(32) NULL;
