-- +goose Up
ALTER TABLE invites ADD KEY /*M! IF NOT EXISTS */ by_member (group_id, user_id);
