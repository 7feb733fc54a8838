-- +goose Up
-- User 1 is the bot. The row "setup" is only locked, by whoever prepares the tables.
INSERT INTO id_blocks (name, next_id) VALUES ('user', 2), ('revocation', 1), ('setup', 1);
