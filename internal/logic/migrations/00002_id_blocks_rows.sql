-- +goose Up
-- message: message ids. object: groups, sessions, friend records and private
-- conversations, which must never share an id.
INSERT INTO id_blocks (name, next_id) VALUES ('message', 1), ('object', 1000);
