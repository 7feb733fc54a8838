-- +goose Up
-- The hash of the token that a used one was exchanged for last; NULL: for none.
ALTER TABLE refresh_tokens ADD COLUMN successor BINARY(32) NULL;
