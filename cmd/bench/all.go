package main

import "context"

func all(ctx context.Context, s *settings) error { return nil }
