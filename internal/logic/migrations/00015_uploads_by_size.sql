-- +goose Up
-- What a user's files take is summed up from the index alone.
ALTER TABLE uploads ADD KEY /*M! IF NOT EXISTS */ by_user_size (user_id, size), DROP KEY /*M! IF EXISTS */ by_user;
