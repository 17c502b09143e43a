package ottla

// TokenProviders is how many are known.
func TokenProviders() int {
	processTokens.mu.Lock()
	defer processTokens.mu.Unlock()
	return len(processTokens.providers)
}
