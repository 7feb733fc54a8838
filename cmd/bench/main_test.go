package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDispatch(t *testing.T) {
	require.NoError(t, dispatch(t.Context(), []string{"list"}))
	require.ErrorContains(t, dispatch(t.Context(), nil), "usage")
	require.ErrorContains(t, dispatch(t.Context(), []string{"nonsense"}), "usage")
	require.ErrorContains(t, dispatch(t.Context(), []string{"run", "-state", t.TempDir()}), "which scenario")
	require.ErrorContains(t, dispatch(t.Context(), []string{"run", "-state", t.TempDir(), "private"}), "no cluster")
	require.ErrorContains(t, dispatch(t.Context(), []string{"knee", "-rates", "5,x"}), "rate")
	require.ErrorContains(t, dispatch(t.Context(), []string{"run", "-own-env", "A=1", "large"}), "give -own")
	require.Error(t, dispatch(t.Context(), []string{"run", "-urls", "http://127.0.0.1:1", "-pids", "x", "private"}))
}

func TestRelay_EndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, dispatch(ctx, []string{"relay"}))
}

func TestPairs(t *testing.T) {
	got, err := pairs("a=1,b=2=3")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1", "b": "2=3"}, got)
	_, err = pairs("a")
	require.Error(t, err)
}
