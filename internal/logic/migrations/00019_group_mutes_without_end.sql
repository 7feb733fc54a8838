-- +goose Up
-- Those that are there were made for ever.
UPDATE conversations SET muted_until_ms = 9007199254740991 WHERE muted = 1;
